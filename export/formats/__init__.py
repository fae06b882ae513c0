"""Other trainers' formats: each maps the columns of a kind of ours to those of a consumer."""
