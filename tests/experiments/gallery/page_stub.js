// A stub of the gallery's page: enough to run its script, move the sliders and read what it says.
"use strict";
const fs = require("fs");

function element(extra) {
  const listeners = {};
  return Object.assign({
    attributes: {}, hidden: false, textContent: "", innerHTML: "",
    setAttribute(name, value) { this.attributes[name] = String(value); },
    getAttribute(name) { return this.attributes[name]; },
    addEventListener(name, listener) { (listeners[name] ||= []).push(listener); },
    fire(name) { (listeners[name] || []).forEach((listener) => listener({})); },
    focus() {},
  }, extra);
}
function box(parts) {
  return element({ querySelector: (q) => parts[q], querySelectorAll: () => parts.inputs });
}
const svg = () => element({ viewBox: { baseVal: { width: 640, height: 320 } } });
const h = element({ value: "0.3" }), rate = element({ value: "0.03" }), momentum = element({ value: "0" });
const secant = { input: h, svg: svg(), output: element(), p: element() };
const descent = {
  'input[name="rate"]': rate, 'input[name="momentum"]': momentum, inputs: [rate, momentum],
  'output[data-for="rate"]': element(), 'output[data-for="momentum"]': element(), svg: svg(), p: element(),
};
const sections = [element(), element()];
const tabs = sections.map((_, i) => element({ attributes: { "aria-controls": `chapter-${i}` } }));
const known = { "play-secant": box(secant), "play-step": box(descent), "chapter-0": sections[0], "chapter-1": sections[1] };
globalThis.document = { querySelectorAll: () => tabs, getElementById: (id) => known[id] || null };

(0, eval)(fs.readFileSync(process.argv[2], "utf8"));
const answers = { firstChapter: sections.map((section) => section.hidden) };
tabs[1].fire("click");
answers.secondChapter = sections.map((section) => section.hidden);
h.value = "-1";
h.fire("input");
answers.secant = secant.p.textContent;
const before = descent.svg.innerHTML;
rate.value = "0.06";
rate.fire("input");
momentum.value = "0.3";
momentum.fire("input");
answers.descent = descent.p.textContent;
answers.redrawn = before !== descent.svg.innerHTML && descent.svg.innerHTML.includes("<polyline");
rate.value = "0.14";
rate.fire("input");
answers.diverging = descent.p.textContent;
console.log(JSON.stringify(answers));
