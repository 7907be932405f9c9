"use strict";
const list = document.getElementById("conversations");
if (list) {
  const cards = [...list.children].map((card) => ({ card, text: card.textContent.toLowerCase(), ...card.dataset }));
  const field = (name) => document.getElementById(name);
  const shown = field("shown");
  const apply = () => {
    const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = ["lang", "length", "split"].map((name) => [name, field(name).value]).filter(([, value]) => value);
    let count = 0;
    for (const one of cards) {
      const hit = words.every((word) => one.text.includes(word)) && wanted.every(([name, value]) => one[name] === value);
      one.card.hidden = !hit;
      count += hit;
    }
    shown.textContent = `${count} of ${cards.length} shown`;
  };
  for (const name of ["search", "lang", "length", "split"]) field(name).addEventListener("input", apply);
  apply();
}
