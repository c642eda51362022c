"use strict";

// Tabs. Without this script every chapter is shown, one after another.
const tabs = [...document.querySelectorAll('[role="tab"]')];
function choose(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
}
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(i + by + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
});
if (tabs.length) choose(tabs[0]);

// A window of coordinates onto the box of an <svg>.
function plane(svg, [x0, x1], [y0, y1]) {
  const { width, height } = svg.viewBox.baseVal;
  const at = (x, y) => [((x - x0) / (x1 - x0)) * width, ((y1 - y) / (y1 - y0)) * height];
  const parts = [];
  return {
    line(points, style) {
      const text = points.map(([x, y]) => at(x, y).map((v) => v.toFixed(1)).join()).join(" ");
      parts.push(`<polyline points="${text}" fill="none" ${style}/>`);
    },
    dot(x, y, radius, style) {
      const [u, v] = at(x, y);
      parts.push(`<circle cx="${u}" cy="${v}" r="${radius}" ${style}/>`);
    },
    show() { svg.innerHTML = parts.join(""); },
  };
}
const range = (n) => Array.from({ length: n }, (_, i) => i);
const short = (x) => (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e4 ? x.toExponential(2) : x.toFixed(4));

// The secant of f(x) = sin x + x²/8 at 0.5, as in the picture above.
function secant(box) {
  const slider = box.querySelector("input"), svg = box.querySelector("svg");
  const f = (x) => Math.sin(x) + (x * x) / 8, slope = (x) => Math.cos(x) + x / 4, x = 0.5;
  function draw() {
    const h = 10 ** slider.value, found = (f(x + h) - f(x)) / h;
    box.querySelector("output").textContent = short(h);
    const view = plane(svg, [-0.6, 3.4], [-0.9, 3.5]);
    const straight = (k) => [-0.6, 3.4].map((t) => [t, f(x) + k * (t - x)]);
    view.line(straight(slope(x)), 'stroke="#0072B2" stroke-width="3" stroke-dasharray="9 6"');
    view.line(straight(found), 'stroke="#D55E00" stroke-width="2.5"');
    view.line(range(161).map((i) => -0.6 + i / 40).map((t) => [t, f(t)]), 'stroke="black" stroke-width="3"');
    view.dot(x, f(x), 7, 'fill="white" stroke="black" stroke-width="2"');
    view.dot(x + h, f(x + h), 6, 'fill="#D55E00"');
    view.show();
    box.querySelector("p").textContent =
      `Slope of the secant ${short(found)}, of the tangent ${short(slope(x))}; error ${short(found - slope(x))}.`;
  }
  slider.addEventListener("input", draw);
  draw();
}

// Gradient descent with momentum on ½ (x² + 20 y²), computed here at every move of a slider.
function descent(box) {
  const svg = box.querySelector("svg"), steps = 60, curvature = [1, 20];
  const read = (name) => {
    const value = Number(box.querySelector(`input[name="${name}"]`).value);
    box.querySelector(`output[data-for="${name}"]`).textContent = value.toFixed(3);
    return value;
  };
  function draw() {
    const rate = read("rate"), momentum = read("momentum");
    let p = [9, 1], v = [0, 0];
    const path = [p];
    for (let i = 0; i < steps; i++) {
      v = v.map((v, k) => momentum * v - rate * curvature[k] * p[k]);
      p = p.map((p, k) => p + v[k]);
      path.push(p);
    }
    const view = plane(svg, [-10.5, 10.5], [-4.5, 4.5]);
    for (const level of [0.5, 2, 5, 12, 25, 45]) {
      const ellipse = range(121).map((i) => (i * Math.PI) / 60).map((t) =>
        [Math.sqrt(2 * level) * Math.cos(t), Math.sqrt(2 * level / 20) * Math.sin(t)]);
      view.line(ellipse, 'stroke="#7fb0ac" stroke-width="1.3"');
    }
    const near = path.filter(([x, y]) => Math.hypot(x, y) < 1e3);
    view.line(near, 'stroke="#D55E00" stroke-width="2"');
    near.forEach(([x, y]) => view.dot(x, y, 4, 'fill="#D55E00" stroke="white"'));
    view.dot(0, 0, 6, 'fill="black"');
    view.show();
    const left = Math.hypot(...p), limit = (2 * (1 + momentum)) / curvature[1];
    const text = rate > limit ? `Too large: beyond ${limit.toFixed(3)} the steep direction grows.`
      : `Stable below ${limit.toFixed(3)}.`;
    box.querySelector("p").textContent =
      `${text} Distance to the minimum after ${steps} steps: ${short(left)}, from ${short(Math.hypot(9, 1))}.`;
  }
  box.querySelectorAll("input").forEach((input) => input.addEventListener("input", draw));
  draw();
}

for (const [id, start] of [["play-secant", secant], ["play-step", descent]]) {
  const box = document.getElementById(id);
  if (box) start(box);
}
