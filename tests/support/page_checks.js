// What a test asks of the page of a report (tests/system/test_report_page.py). Each function returns what is wrong.

// Pictures that do not decode or have no alternative text, links that lead nowhere.
async function missing() {
  const gone = [];
  for (const image of document.images) {
    await image.decode().catch(() => gone.push(image.alt));
    if (!image.hasAttribute("alt")) gone.push("no alt");
  }
  const atlas = JSON.parse(document.getElementById("atlas-data").textContent);
  for (const set of Object.values(atlas.sprites)) {
    for (const uri of set.sheets) {
      const image = new Image();
      image.src = uri;
      await image.decode().catch(() => gone.push(uri.slice(0, 40)));
    }
  }
  for (const link of document.querySelectorAll("nav a, .skip")) {
    if (!document.querySelector(link.getAttribute("href"))) gone.push(link.getAttribute("href"));
  }
  return gone;
}

// Neurons of the list of which a panel, a picture, a chart, a label or a number is missing.
function incomplete() {
  const bad = [], numbers = /NaN|undefined|Infinity/;
  const curves = JSON.parse(document.getElementById("atlas-data").textContent).curves.filter((curve) => !curve.beside).length;
  for (const button of [...document.querySelectorAll("#list button")]) {
    button.click();
    const panels = document.getElementById("panels");
    const pictures = [...panels.querySelectorAll(".pic")], charts = [...panels.querySelectorAll("svg.chart")];
    const wrong = {
      panels: panels.children.length !== 6, charts: charts.length !== 1 + curves, few: pictures.length < 30,
      drawn: !pictures.every((each) => getComputedStyle(each).backgroundImage.startsWith("url")),
      labels: ![...charts, ...pictures].every((each) => each.getAttribute("aria-label") || each.ariaHidden === "true"),
      numbers: charts.some((chart) => numbers.test(chart.outerHTML)) || numbers.test(panels.innerText),
    };
    const found = Object.keys(wrong).filter((name) => wrong[name]);
    if (found.length) bad.push([button.textContent, ...found]);
  }
  return bad;
}

// How many texts can be seen, and those whose contrast is below 4.5 (WCAG 2, AA).
function contrast() {
  const parse = (colour) => [...colour.match(/[\d.]+/g).map(Number), 1].slice(0, 4);
  const linear = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => parse(getComputedStyle(element).backgroundColor);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
  let count = 0;
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), parent = walker.currentNode.parentElement;
    if (!text || /SCRIPT|STYLE|TITLE/i.test(parent.tagName)) continue;
    if (!parent.checkVisibility() || parent.closest(":disabled, .sr, .skip")) continue;
    const style = getComputedStyle(parent), front = parse(parent instanceof SVGElement ? style.fill : style.color);
    let behind = parent;
    while (behind && ground(behind)[3] === 0) behind = behind.parentElement;
    const [more, less] = [light(front), light(behind ? ground(behind) : [255, 255, 255])].sort((a, b) => b - a);
    const ratio = (more + 0.05) / (less + 0.05);
    count += 1;
    if (ratio < 4.5) low.push([text.slice(0, 30), ratio.toFixed(2)]);
  }
  return [count, low];
}

// Elements that stand out of a window of this width, but for what scrolls by itself.
function wide(width) {
  return [...document.querySelectorAll("main *")].filter((each) => each.getBoundingClientRect().right > width + 1 &&
    !each.closest(".wide, pre, #list, nav, .sr")).map((each) => each.outerHTML.slice(0, 80));
}
