"use strict";
// The atlas: one neuron is shown at a time; the fragment "#neuron=STAGE/ROW,COL,MAP" names it.
(() => {
  const data = JSON.parse(document.getElementById("atlas-data").textContent);
  const neurons = data.neurons, at = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  let current = -1, order = [];

  // ---- small tools ---------------------------------------------------------------------------

  // An element with attributes and children; texts stay texts, whatever is in them.
  function make(tag, attributes = {}, ...children) {
    const drawn = tag.startsWith("svg:");
    const element = drawn ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  // Ties go to the even digit, as in the tables of the page, which Python writes.
  const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1, roundingMode: "halfEven" });
  const percent = (share) => share === null ? "-" : `${tenths.format(100 * share)}\u00a0%`;
  const number = (value) => value === null ? "-" : Number(value.toPrecision(3)).toLocaleString("en");
  const nameOf = (n) => `${n.stage}/${n.row},${n.col},${n.map}`;
  const fragment = (n) => `#neuron=${nameOf(n)}`;
  const between = (low, high) => low === null ? "" : percent(low) === percent(high) ? percent(low)
    : `${percent(low).slice(0, -2)} to ${percent(high)}`;
  const legend = (shows, text) => make("span", { class: "legend-item" },
    make("span", { class: shows ? "key shows" : "key", "aria-hidden": "true" }), text);

  // Sprites: a rule for every sheet, so that the page holds each picture once.
  const rules = [];
  for (const [name, set] of Object.entries(data.sprites)) {
    set.sheets.forEach((uri, sheet) => rules.push(`.s-${name}-${sheet}{background-image:url(${uri})}`));
  }
  document.head.append(make("style", {}, rules.join("\n")));

  function sprite(name, index, width, label, extra = "sharp") {
    const set = data.sprites[name], sheet = Math.floor(index / set.each), place = index % set.each;
    const col = place % set.across, row = Math.floor(place / set.across);
    const height = width * set.rows / set.cols;
    const style = `width:${width}px;height:${height}px;background-size:${set.across * width}px auto;` +
      `background-position:${-col * width}px ${-row * height}px`;
    const inner = make("span", { class: `pic ${extra} s-${name}-${sheet}`, style });
    if (label) { inner.setAttribute("role", "img"); inner.setAttribute("aria-label", label); }
    else inner.setAttribute("aria-hidden", "true");
    return inner;
  }
  const picture = (content, caption, broad = false) =>
    make("figure", { class: broad ? "broad" : null }, content, make("figcaption", {}, caption));

  // One element of several can be reached with Tab; arrows go from one to the other.
  function rove(elements, event, index) {
    if (index < 0 || index >= elements.length) return;
    event.preventDefault();
    elements.forEach((element) => { element.tabIndex = -1; });
    elements[index].tabIndex = 0;
    elements[index].focus();
  }

  // ---- the network ---------------------------------------------------------------------------

  const byPlace = new Map();  // "stage/row,col" -> neurons
  neurons.forEach((n, index) => {
    const key = `${n.stage}/${n.row},${n.col}`;
    if (!byPlace.has(key)) byPlace.set(key, []);
    byPlace.get(key).push(index);
  });
  const bestOf = (indices) => indices.reduce((a, b) => neurons[b].accuracy > neurons[a].accuracy ? b : a);

  function drawNetwork() {
    const network = at("network");
    const field = make("svg:svg", { viewBox: `0 0 ${data.size} ${data.size}`, role: "img", id: "field" });
    network.append(make("figure", {},
      make("div", { class: "plane" }, field),
      make("figcaption", { id: "field-caption" }, "")));
    data.stages.forEach((stage, index) => {
      const plane = make("div", { class: "plane", role: "group",
        "aria-label": `Stage ${index + 1}: positions with neurons of the atlas; arrow keys move` });
      plane.append(make("img", { src: stage.picture, alt: "", "aria-hidden": "true" }));
      const buttons = [];
      for (const [key, members] of byPlace) {
        const first = neurons[members[0]];
        if (first.stage !== index + 1) continue;
        const button = make("button", { type: "button", "data-place": key, "aria-pressed": "false", tabindex: "-1",
          "aria-label": `stage ${first.stage}, row ${first.row}, col ${first.col}: ` +
            `${members.length} ${members.length > 1 ? "neurons" : "neuron"}`,
          style: `left:${100 * first.col / stage.cols}%;top:${100 * first.row / stage.rows}%;` +
            `width:${100 / stage.cols}%;height:${100 / stage.rows}%`,
          onclick: () => show(bestOf(members)) });
        button.place = [first.row, first.col];
        buttons.push(button);
      }
      if (buttons.length) buttons[0].tabIndex = 0;
      plane.addEventListener("keydown", (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        const from = buttons.indexOf(document.activeElement);
        if (!step || from < 0) return;
        const [row, col] = buttons[from].place;
        let nearest = -1, least = Infinity;
        buttons.forEach((button, to) => {  // straight ahead first
          const along = (button.place[0] - row) * step[0] + (button.place[1] - col) * step[1];
          const aside = Math.abs((button.place[0] - row) * step[1]) + Math.abs((button.place[1] - col) * step[0]);
          if (along > 0 && along + 2 * aside < least) { least = along + 2 * aside; nearest = to; }
        });
        rove(buttons, event, nearest);
      });
      plane.append(...buttons);
      network.append(make("span", { class: "arrow", "aria-hidden": "true" }, "\u2192"), make("figure", {}, plane,
        make("figcaption", {}, `Stage ${index + 1}: ${stage.rows} \u00d7 ${stage.cols} positions \u00d7 ${stage.maps} maps; ` +
          `best map ${between(stage.low, stage.high)}`)));
    });
    const ramp = make("span", { class: "ramp", style:
      "background:linear-gradient(90deg,#f0f9e8,#bae4bc,#7bccc4,#43a2ca,#08589e)" });
    at("map-legend").append("Colour: accuracy of the best map at each position, on each stage's own scale, low", ramp,
      "high. A dot: the atlas has neurons there; click one, or use the list.");
  }

  function drawField(n) {
    const [top, left, bottom, right] = n.sees, size = data.size, unit = size / 100;
    const svg = at("field");
    svg.replaceChildren(make("svg:title", {}, `Receptive field: rows ${top} to ${bottom - 1}, cols ${left} to ${right - 1} of ${size} x ${size} pixels`));
    for (let line = 0; line <= 4; line++) {
      const position = line * size / 4;
      for (const ends of [{ x1: position, x2: position, y1: 0, y2: size }, { y1: position, y2: position, x1: 0, x2: size }]) {
        svg.append(make("svg:line", { ...ends, stroke: "var(--line)", "stroke-width": unit }));
      }
    }
    svg.append(make("svg:rect", { x: left + unit, y: top + unit, width: right - left - 2 * unit, height: bottom - top - 2 * unit,
      fill: "var(--band)", stroke: "var(--accent)", "stroke-width": 2 * unit }));
    const whole = right - left >= size && bottom - top >= size;
    at("field-caption").textContent = `The frame, ${size} \u00d7 ${size} pixels, and what the neuron sees of it: ` +
      (whole ? "all" : `rows ${top}\u2013${bottom - 1}, cols ${left}\u2013${right - 1}`);
  }

  function drawMaps(n) {
    const members = [...byPlace.get(`${n.stage}/${n.row},${n.col}`)].sort((a, b) => neurons[a].map - neurons[b].map);
    const box = at("maps");
    const buttons = members.map((index) => make("button", { type: "button", tabindex: index === current ? "0" : "-1",
      "aria-pressed": String(index === current), "aria-label": `map ${neurons[index].map}, ${percent(neurons[index].accuracy)} right`,
      title: `${percent(neurons[index].accuracy)} right`, onclick: () => { show(index); at("maps").querySelector("[aria-pressed=true]").focus(); } },
      String(neurons[index].map)));
    box.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) rove(buttons, event, buttons.indexOf(document.activeElement) + step);
    };
    box.replaceChildren(make("span", {}, `Maps at stage ${n.stage}, row ${n.row}, col ${n.col}` +
      (members.length < data.stages[n.stage - 1].maps ? ` (${members.length} of ${data.stages[n.stage - 1].maps} are in the atlas):` : ":")), ...buttons);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Maps at this position");
  }

  // ---- the list ------------------------------------------------------------------------------

  const held = data.honest ? "held-out accuracy" : "accuracy";
  const sorts = [[held, (n) => -n.accuracy], ["area under the curve", (n) => -n.auc], ["place in the network", () => 0],
    ...data.kinds.map((kind, k) => [`firing at \u2018${kind}\u2019`, (n) => -n.fires[k]])];

  function drawList() {
    const key = sorts[at("sort").value][1];
    order = neurons.map((_, index) => index).sort((a, b) => key(neurons[a]) - key(neurons[b]) || a - b);
    const items = order.map((index) => {
      const n = neurons[index];
      return make("li", {}, make("button", { type: "button", "data-neuron": index, tabindex: "-1", onclick: () => show(index) },
        sprite("means", 2 + index, 34, "", ""), sprite("optima", index, 34, "", ""), make("span", {}, nameOf(n)), make("span", {}, percent(n.accuracy))));
    });
    at("list").replaceChildren(...items);
    markList();
  }

  function markList() {
    for (const button of at("list").querySelectorAll("button")) {
      const mine = Number(button.dataset.neuron) === current;
      button.setAttribute("aria-current", String(mine));
      button.tabIndex = mine ? 0 : -1;
      if (!mine) continue;
      const list = at("list"), box = button.parentElement;
      if (list.scrollWidth > list.clientWidth + 1) list.scrollLeft = box.offsetLeft - list.offsetLeft - list.clientWidth / 2;
      else if (box.offsetTop < list.scrollTop + list.offsetTop || box.offsetTop + box.offsetHeight > list.scrollTop + list.offsetTop + list.clientHeight)
        list.scrollTop = box.offsetTop - list.offsetTop - list.clientHeight / 2;
    }
    at("previous").disabled = order.indexOf(current) <= 0;
    at("next").disabled = order.indexOf(current) >= order.length - 1;
  }

  // ---- charts --------------------------------------------------------------------------------

  const WIDTH = 300, HEIGHT = 172, LEFT = 40, RIGHT = 8, TOP = 14, BOTTOM = 34;
  function frame(label, [x0, x1], [y0, y1], ticks, unit, left) {
    const x = (v) => LEFT + (v - x0) / (x1 - x0 || 1) * (WIDTH - LEFT - RIGHT);
    const y = (v) => HEIGHT - BOTTOM - (v - y0) / (y1 - y0 || 1) * (HEIGHT - TOP - BOTTOM);
    const svg = make("svg:svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
    svg.append(make("svg:line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(y0), y2: y(y0) }),
      make("svg:line", { class: "axis", x1: LEFT, x2: LEFT, y1: y(y0), y2: y(y1) }));
    for (const [value, text] of ticks) {
      svg.append(make("svg:line", { class: "axis", x1: x(value), x2: x(value), y1: y(y0), y2: y(y0) + 4 }),
        make("svg:text", { x: x(value), y: y(y0) + 16, "text-anchor": "middle" }, text));
    }
    for (const value of [y0, y1]) svg.append(make("svg:text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, number(value)));
    svg.append(make("svg:text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, unit),
      make("svg:text", { x: LEFT + 4, y: TOP - 4 }, left));
    return { svg, x, y };
  }
  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  function histogram(n) {
    const totals = n.histogram.map((counts) => counts.reduce((a, b) => a + b, 0) || 1);
    const shares = n.histogram.map((counts, label) => counts.map((count) => 100 * count / totals[label]));
    const most = Math.max(...shares.flat());
    const label = `Histogram of responses from ${number(n.low)} to ${number(n.high)}; threshold ${number(n.threshold)}`;
    const { svg, x, y } = frame(label, [n.low, n.high], [0, most], [[n.low, number(n.low)], [n.high, number(n.high)]], "response", "% of the kind");
    const width = (n.high - n.low) / shares[0].length;
    shares.forEach((row, kind) => {
      const points = [[x(n.low), y(0)]];
      row.forEach((share, bin) => points.push([x(n.low + bin * width), y(share)], [x(n.low + (bin + 1) * width), y(share)]));
      svg.append(make("svg:path", { class: kind ? "yes" : "no", d: `${path([...points, [x(n.high), y(0)]])}Z` }));
    });
    const threshold = Math.min(Math.max(n.threshold, n.low), n.high);
    svg.append(make("svg:line", { class: "level", x1: x(threshold), x2: x(threshold), y1: y(0), y2: y(most) }));
    return svg;
  }

  function curve(n, index) {
    const sweep = data.curves[index], [mean, half] = n.curves[index];
    const low = mean.map((m, i) => m - (half[i] || 0)), high = mean.map((m, i) => m + (half[i] || 0));
    const beside = data.curves.map((other, i) => other.beside === sweep.name ? n.curves[i][0] : null).filter((values) => values);
    const y0 = Math.min(n.rest, ...low, ...beside.flat()), y1 = Math.max(n.threshold, n.rest, ...high, ...beside.flat());
    const start = sweep.at.reduce((a, b, i) => Math.abs(b - sweep.unchanged) < Math.abs(sweep.at[a] - sweep.unchanged) ? i : a, 0);
    const range = (values) => {
      let first = start, last = start;
      while (first > 0 && values[first - 1] > n.threshold) first--;
      while (last < values.length - 1 && values[last + 1] > n.threshold) last++;
      return values[start] > n.threshold
        ? `stays above the threshold from ${number(sweep.at[first])} to ${number(sweep.at[last])}`
        : `is not above the threshold at ${number(sweep.at[start])}, where nothing is changed`;
    };
    const scanned = beside.map((values) => `; that to a scanned head ${range(values)}`).join("");
    const across = sweep.name === "scale" ? sweep.at.map(Math.log) : sweep.at;
    const edges = [0, start, sweep.at.length - 1];
    const { svg, x, y } = frame(`Mean response against ${sweep.name}, ${sweep.unit}: it ${range(mean)}${scanned}`,
      [across[0], across[across.length - 1]], [y0, y1], edges.map((i) => [across[i], number(sweep.at[i])]), sweep.unit, sweep.name);
    svg.append(make("svg:path", { class: "band", d: `${path([...high.map((v, i) => [x(across[i]), y(v)]),
      ...low.map((v, i) => [x(across[i]), y(v)]).reverse()])}Z` }),
      make("svg:line", { class: "rest", x1: LEFT, x2: WIDTH - RIGHT, y1: y(n.rest), y2: y(n.rest) }),
      make("svg:line", { class: "level", x1: LEFT, x2: WIDTH - RIGHT, y1: y(n.threshold), y2: y(n.threshold) }),
      make("svg:path", { class: "curve", d: path(mean.map((v, i) => [x(across[i]), y(v)])) }));
    for (const values of beside) {
      const points = values.map((v, i) => [x(across[i]), y(v)]);
      svg.append(make("svg:path", { class: "scan", d: path(points) }), make("svg:path", { class: "mark",
        d: points.map(([px, py]) => `M${(px - 2.5).toFixed(1)} ${(py - 2.5).toFixed(1)}h5v5h-5Z`).join("") }));
    }
    return svg;
  }

  // ---- one neuron ----------------------------------------------------------------------------

  function panel(title, half, ...children) {
    return make("section", { class: half ? "panel half" : "panel" }, make("h4", {}, title), ...children);
  }

  function thumbs(n) {
    const set = data.sprites.images, width = Math.max(40, Math.min(52, set.cols));
    const rows = [];
    n.shown.forEach((group, g) => {
      const values = n.responses[g];
      rows.push(make("div", { class: "thumbs-head" }, make("b", {}, data.groups[g]),
        make("small", {}, values.length ? `${number(values[0])} to ${number(values[values.length - 1])}` : "")));
      rows.push(make("div", {}, ...group.map((image, i) => {
        const kind = data.kinds[data.images.kind[image]];
        const label = `test image ${data.images.at[image]}, ${kind}, response ${number(values[i])}`;
        return make("span", { class: data.images.shows[image] ? "thumb shows" : "thumb", title: label },
          sprite("images", image, width, label, ""));
      })));
    });
    return make("div", { class: "thumbs" }, ...rows);
  }

  function drawNeuron(n, index) {
    const stage = data.stages[n.stage - 1];
    at("neuron-title").textContent = `Neuron ${nameOf(n)}`;
    at("neuron-link").href = fragment(n);
    at("neuron-place").textContent = `Stage ${n.stage} of ${data.stages.length}, row ${n.row}, col ${n.col}, map ${n.map}` +
      `; number ${order.indexOf(index) + 1} of ${neurons.length} in the list`;
    const fires = make("div", { class: "bars" });
    data.kinds.forEach((kind, k) => fires.append(make("span", {}, `${kind} (${data.kindCounts[k].toLocaleString("en")})`),
      make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${100 * (n.fires[k] || 0)}%` })), make("span", {}, percent(n.fires[k]))));
    const filters = data.sprites[`filters${n.stage}`];
    const zoom = Math.max(1, Math.min(138 / filters.cols, 138 / filters.rows, 24));
    const broad = filters.cols > 2 * filters.rows ? Math.min(300, 6 * filters.cols) : Math.round(filters.cols * zoom);
    const seen = [
      picture(sprite(`filters${n.stage}`, n.filter, broad, `filters of neuron ${nameOf(n)}`), `Filters. ${stage.filters}`, broad > 140)];
    const start = data.starts > 1 && n.agree !== null ? ` The two best of ${data.starts} starts correlate at ${n.agree.toFixed(2)}.` : "";
    seen.push(picture(sprite("optima", index, 138, `numerical optimum of neuron ${nameOf(n)}`, ""),
        `Numerical optimum: the picture of contrast ${number(data.contrast)} with the strongest response found, ${number(n.optimum)}.${start}`),
      picture(sprite("means", 2 + index, 138, `mean of the ${data.highest} images with the highest response`, ""),
        `Mean of the ${data.highest} images with the highest response (${percent(data.highest / data.judged)}), of ${n.groups} ${data.resampled}; each has mean 0 and deviation 1.`),
      picture(sprite("means", 0, 138, `mean of the images with the concept`, ""),
        `For comparison, the mean of all images with \u2018${data.concept}\u2019: what a neuron's mean shares with it may be framing.`),
      picture(sprite("means", 1, 138, `mean of the rest`, ""), "The mean of the rest."));
    at("panels").replaceChildren(
      panel(data.honest ? "Held-out accuracy" : "Accuracy", true,
        make("p", { class: "big" }, percent(n.accuracy), " ", make("small", {}, between(...n.interval) && `95\u00a0% interval ${between(...n.interval)}`)),
        make("p", { class: "note" }, `Always the more frequent answer: ${percent(data.chance)}. Area under the curve ${percent(n.auc)}. The neuron \u201cfires\u201d above ${number(n.threshold)}. How often, by what the images show:`),
        fires),
      panel("Responses", true, histogram(n), make("p", { class: "note" },
        legend(true, `green: with \u2018${data.concept}\u2019`), legend(false, "orange: the rest"), "Dashed line: the threshold.")),
      panel("What it sees", false, make("div", { class: "row" }, ...seen)),
      panel("Test images", false, thumbs(n), make("p", { class: "note" }, legend(true, `solid green: \u2018${data.concept}\u2019`), legend(false, "dashed orange: the rest"),
        "Whole frames, strongest response first; the neuron sees the part of them that is marked above.")),
      panel("What it tolerates", false, make("div", { class: "charts" }, ...data.curves.map((sweep, i) => sweep.beside ? null : curve(n, i))),
        make("p", { class: "note" }, `Mean response to ${data.examples} test images with \u2018${data.concept}\u2019, changed by cubic interpolation; ` +
          "what comes in from outside is mirrored. " + (data.heads ? `${data.heads} rendered heads, of nobody in training, turn and nod before images of the rest. ` : "") +
          (data.scanned ? `One real head that was scanned turns and nods, too${data.heads ? ": the thin line with squares" : ""}; of one person there is no band. ` : "") +
          "Band: 95 % interval of the mean over these images or heads. Dashed: the threshold; dotted: the mean response to the rest. " +
          "The same for every neuron, so a neuron for something else has flat curves.")),
      panel("Respond most alike", false, make("div", { class: "alike" }, ...n.alike.map(([other, correlation]) =>
        make("a", { href: fragment(neurons[other]), "aria-label": `neuron ${nameOf(neurons[other])}, correlation ${correlation.toFixed(2)}` },
          make("span", { class: "two" }, sprite("means", 2 + other, 52, "", ""), sprite("optima", other, 52, "", "")), make("span", {}, nameOf(neurons[other])), make("span", {}, `r = ${correlation.toFixed(2)}`)))),
        make("p", { class: "note" }, "Left the mean of the strongest images, right the optimum; r: correlation of the responses over the test images, among the neurons of the atlas.")));
    at("said").textContent = `Neuron ${nameOf(n)}, ${percent(n.accuracy)} right`;
  }

  function show(index, remember = true) {
    current = index;
    const n = neurons[index];
    at("neuron-unknown").hidden = true;
    drawField(n);
    drawMaps(n);
    drawNeuron(n, index);
    for (const button of at("network").querySelectorAll("button")) {
      const mine = button.dataset.place === `${n.stage}/${n.row},${n.col}`;
      button.setAttribute("aria-pressed", String(mine));
      if (mine) { for (const other of button.parentElement.querySelectorAll("button")) other.tabIndex = other === button ? 0 : -1; }
    }
    markList();
    if (remember) history.replaceState(null, "", fragment(n));
  }

  // What the fragment names: a neuron's number, -1 nothing, null a neuron that is not here.
  function named() {
    let text = location.hash;
    try { text = decodeURIComponent(text); } catch { return -1; }
    if (!text.startsWith("#neuron=")) return -1;
    const index = neurons.findIndex((n) => fragment(n) === text);
    return index < 0 ? null : index;
  }
  function follow(first) {
    const index = named();
    if (index === -1) { if (first) show(order[0], false); return; }
    if (index === null) {
      if (first) show(order[0], false);
      at("neuron-unknown").textContent = `The atlas has no neuron \u2018${location.hash.slice(8)}\u2019: it shows ${neurons.length} of ${data.all}. ` +
        "hpclcae report RUN --neuron STAGE/ROW,COL,MAP adds one.";
      at("neuron-unknown").hidden = false;
    } else show(index, false);
    if (first) at("atlas").scrollIntoView();
    else at("neuron-title").focus({ preventScroll: false });
  }

  at("sort").append(...sorts.map(([name], index) => make("option", { value: index }, name)));
  at("sort").addEventListener("change", () => { drawList(); drawNeuron(neurons[current], current); });
  at("previous").addEventListener("click", () => show(order[order.indexOf(current) - 1]));
  at("next").addEventListener("click", () => show(order[order.indexOf(current) + 1]));
  at("list").addEventListener("keydown", (event) => {
    const buttons = [...at("list").querySelectorAll("button")], from = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: from + 1, ArrowRight: from + 1, ArrowUp: from - 1, ArrowLeft: from - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || from < 0) return;
    rove(buttons, event, to);
  });
  window.addEventListener("hashchange", () => follow(false));
  window.addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });

  at("atlas-body").hidden = false;
  drawNetwork();
  drawList();
  follow(true);
})();
