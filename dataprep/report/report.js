"use strict";
// Filters the items of #list by a search field and by select elements, and shows PAGE of them at a time. The id of a
// select names the data attribute of an item that it filters on; it holds one value, or several separated by spaces.
const PAGE = 20;
const list = document.getElementById("list");
if (list) {
  const items = [...list.children].map((element) => ({ element, text: element.textContent.toLowerCase() }));
  const search = document.getElementById("search");
  const selects = [...document.querySelectorAll(".tools select")];
  const status = document.getElementById("shown");
  const more = document.getElementById("more");
  let limit = PAGE;
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const active = selects.filter((select) => select.value);
    const matches = ({ element, text }) => words.every((word) => text.includes(word)) && active.every(({ id, value }) => {
      const data = element.dataset[id];
      return data === value || data.split(" ").includes(value);
    });
    let count = 0;
    for (const item of items) {
      const matched = matches(item);
      count += matched;
      item.element.hidden = !matched || count > limit;
    }
    const visible = Math.min(count, limit);
    status.textContent = `${count} of ${items.length}${visible < count ? `, the first ${visible} shown` : ""}`;
    more.hidden = visible === count;
  };
  const restart = () => { limit = PAGE; show(); };
  for (const field of [search, ...selects]) field.addEventListener("input", restart);
  more.addEventListener("click", () => { limit += PAGE; show(); });
  show();
}
// A link to the rows of a rule opens them.
const openTarget = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", openTarget);
openTarget();
