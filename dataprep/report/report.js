"use strict";
// A list (#list) that a search field and choices filter: a choice is named like the data attribute that it looks at,
// which holds one value or several, with spaces between.
const list = document.getElementById("list");
if (list) {
  const cards = [...list.children].map((card) => ({ card, text: card.textContent.toLowerCase(), ...card.dataset }));
  const search = document.getElementById("search");
  const choices = [...document.querySelectorAll(".tools select")];
  const shown = document.getElementById("shown");
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = choices.filter((choice) => choice.value).map((choice) => [choice.id, choice.value]);
    const fits = ([name, value], one) => one[name] === value || one[name].split(" ").includes(value);
    let count = 0;
    for (const one of cards) {
      const hit = words.every((word) => one.text.includes(word)) && wanted.every((wish) => fits(wish, one));
      one.card.hidden = !hit;
      count += hit;
    }
    shown.textContent = `${count} of ${cards.length} shown`;
  };
  for (const field of [search, ...choices]) field.addEventListener("input", apply);
  apply();
}
