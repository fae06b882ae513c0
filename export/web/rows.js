// A list of any length of which only what is on view is in the document.

const PRINTED = 5000; // rows that are put on paper

class Rows {
  /** Takes how high a row is, and a function that draws the row at a place of the list. */
  constructor(height, draw, properties = {}) {
    Object.assign(this, { height, draw, length: 0, first: -1, frame: 0 });
    this.slice = make("div.slice", { role: "presentation" });
    this.space = make("div.space", { role: "presentation" }, this.slice);
    this.box = make("div.rows", { tabindex: "0", ...properties }, this.space);
    this.box.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => { this.first = -1; this.later(); }).observe(this.box);
    addEventListener("beforeprint", () => this.render(0, Math.min(this.length, PRINTED)));
    addEventListener("afterprint", () => this.refresh(this.length));
  }

  refresh(length) {
    this.length = length;
    this.space.style.height = `${length * this.height}px`;
    this.first = -1;
    this.later();
  }

  later() {
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.onView(); });
  }

  onView() {
    const spare = 6;
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - spare);
    const last = Math.min(this.length, first + Math.ceil(this.box.clientHeight / this.height) + 2 * spare);
    if (first !== this.first) this.render(first, last);
    this.first = first;
  }

  render(first, last) {
    const drawn = [];
    for (let place = first; place < last; place++) drawn.push(this.draw(place));
    this.slice.style.transform = `translateY(${first * this.height}px)`;
    this.slice.replaceChildren(...drawn);
  }

  /** Scrolls no further than needed for a place to be on view. */
  show(place, middle = false) {
    const top = place * this.height, room = this.box.clientHeight;
    if (top < this.box.scrollTop || top + this.height > this.box.scrollTop + room) {
      this.box.scrollTop = middle ? top - room / 2 : top < this.box.scrollTop ? top : top + this.height - room;
    }
  }
}
