"use strict";
// Filters the items of #list by a search field and by select elements. The id of a select names the data attribute of an
// item that it filters on; the attribute holds one value, or several values separated by spaces.
const list = document.getElementById("list");
if (list) {
  const items = [...list.children].map((element) => ({ element, text: element.textContent.toLowerCase() }));
  const search = document.getElementById("search");
  const selects = [...document.querySelectorAll(".tools select")];
  const status = document.getElementById("shown");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const active = selects.filter((select) => select.value);
    const matches = ({ element, text }) => words.every((word) => text.includes(word)) && active.every(({ id, value }) => {
      const data = element.dataset[id];
      return data === value || data.split(" ").includes(value);
    });
    let count = 0;
    for (const item of items) {
      const shown = matches(item);
      item.element.hidden = !shown;
      count += shown;
    }
    status.textContent = `${count} of ${items.length} shown`;
  };
  for (const field of [search, ...selects]) field.addEventListener("input", filter);
  filter();
}
