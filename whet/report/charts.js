// Draws every figure of the page, in the colours of the theme, and again when the theme changes.

const specs = JSON.parse(document.getElementById("chart-specs").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours(text) {
  const style = getComputedStyle(document.documentElement);
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
}

function config() {
  const font = getComputedStyle(document.body).fontFamily.replaceAll('"', "'");
  return JSON.parse(colours(JSON.stringify({
    background: "transparent",
    font,
    view: { stroke: null },
    axis: {
      labelColor: "var(--muted)", titleColor: "var(--muted)", titleFontWeight: 400, titleFontSize: 12,
      labelFontSize: 11.5, gridColor: "var(--grid)", domain: false, ticks: false, labelPadding: 6, titlePadding: 6,
    },
    axisX: { grid: false, domain: true, domainColor: "var(--line)" },
    legend: { labelColor: "var(--ink)", labelFontSize: 12.5 },
  })));
}

async function draw(figure) {
  const spec = JSON.parse(colours(JSON.stringify(specs[figure.dataset.chart])));
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, config: config(),
    tooltip: { theme: dark.matches ? "dark" : "light" },
  };
  try {
    if (figure.view) figure.view.finalize();
    figure.view = (await window.vegaEmbed(figure, spec, options)).view;
    figure.dataset.drawn = "yes";
  } catch (error) {
    figure.innerHTML = "<p class='chart-failed'></p>";
    figure.firstChild.textContent = `This chart could not be drawn: ${error.message}`;
    console.error(error);
  }
}

async function drawAll() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    if (figure.closest("details:not([open])")) continue; // it has no width yet
    await draw(figure);
  }
  document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
}

for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    if (details.open) details.querySelectorAll("[data-chart]").forEach(draw);
  });
}
dark.addEventListener("change", drawAll);
drawAll();
