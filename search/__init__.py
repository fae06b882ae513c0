"""The ground floor: problems, prompts, trees, searches, the forest and the policies it asks."""
