/* What the panels of one layer show as points: the learned plane, what moved, the gradient. */

/** Normal quantiles of the shares at which rays are drawn. */
const RAYS = [
  [0.01, -2.326348], [0.1, -1.281552], [0.25, -0.67449], [0.5, 0], [0.75, 0.67449], [0.9, 1.281552], [0.99, 2.326348],
];

/** Below so many |γ| of β no Gaussian input is ever positive, as DEAD_SIGMAS of roles.py. */
const DEAD_SIGMAS = 6;

/** The (γ, β) plane with rays of equal predicted firing Φ(β / |γ|); colour is what was measured. */
function planeSpec(store) {
  const fires = store.manifest.paints.fires;
  return {
    title: "What was learned: β against γ",
    description: "Channels by γ and β, with rays along which γ and β predict the same share of positive outputs.",
    prepare(layer, columns) {
      const { gamma, beta } = columns;
      if (!gamma || !beta || !gamma.some(Number.isFinite) || !beta.some(Number.isFinite)) return null;
      const reachX = reachOf(gamma);
      const signed = gamma.some((g) => g < 0);
      const reachY = Math.max(reachOf(beta), 0.3 * reachX);
      const known = fires && columns.fires && columns.fires.some(Number.isFinite);
      const paints = known ? painter(fires, columns.fires) : null;
      return {
        xs: gamma,
        ys: beta,
        x: d3.scaleLinear().domain([signed ? -reachX : -0.03 * reachX, reachX]),
        y: d3.scaleLinear().domain([-reachY, reachY]),
        labels: { x: "γ", y: "β" },
        colour: paints ? (c) => css(paints, columns.fires[c], "#888888") : null,
        note: [
          "Rays: the share that γ and β predict, Φ(β/|γ|)",
          activationOf(layer)?.low === 0 ? `Red: the ${written(activationOf(layer).name)} turns all outputs to 0` : "",
        ].filter(Boolean).join(". "),
        key: known ? "Color: measured share of positive outputs, dark 0 to bright 1" : "",
        words: (c) => [
          `channel ${c}`,
          `γ ${number(gamma[c])}, β ${number(beta[c])}`,
          `positive ${number(columns.fires?.[c])} of the time, predicted ${number(columns.fires_predicted?.[c])}`,
        ],
        under(g, x, y) {
          const sides = signed ? [1, -1] : [1];
          if (activationOf(layer)?.low === 0) for (const side of sides) deadWedge(g, x, y, side, reachX, reachY);
          for (const side of sides) rays(g, x, y, side, reachX, reachY);
        },
      };
    },
  };
}

function deadWedge(g, x, y, side, reachX, reachY) {
  const far = Math.min(reachX, reachY / DEAD_SIGMAS);
  const corners = [[0, 0], [side * far, -DEAD_SIGMAS * far], [0, -reachY]];
  g.append("path").attr("class", "cut").attr("d", `M${corners.map(([a, b]) => `${x(a)},${y(b)}`).join("L")}Z`);
}

function rays(g, x, y, side, reachX, reachY) {
  const [x0, y0] = [x(0), y(0)];
  for (const [share, z] of RAYS) {
    const far = z ? Math.min(reachX, reachY / Math.abs(z)) : reachX;
    const [px, py] = [x(side * far), y(z * far)];
    g.append("line").attr("class", "ray").attr("x1", x0).attr("y1", y0).attr("x2", px).attr("y2", py);
    if (side < 0) continue;
    const out = far >= reachX;
    g.append("text").attr("class", "tick").attr("x", out ? px - 4 : px).attr("y", out ? py - 4 : z > 0 ? py + 11 : py - 4)
      .style("text-anchor", out ? "end" : "middle").text(share);
  }
}

/** Shift of the mean against the ratio of standard deviations, with 95% confidence. */
function movedSpec(state) {
  return {
    title: "Shift: measured against running statistics",
    description: "Channels by the shift of their mean and the ratio of measured to running standard deviation.",
    prepare(layer, columns) {
      const { shift, scale_ratio: ratio, shift_se: se, scale_se: scaleSe, shift_q: q } = columns;
      if (!shift || !ratio || !shift.some(Number.isFinite)) return null;
      const [leastReach, leastRoom] = state.stretched ? [0.05, 1] : [0.5, 2];
      const reach = Math.max(reachOf(shift), leastReach);
      const logs = Float64Array.from(ratio, (v) => (v > 0 ? Math.log(v) : NaN));
      const sorted = sortedFinite(logs);
      const [least, most] = [Math.min(quantile(sorted, 0.005), 0), Math.max(quantile(sorted, 0.995), 0)];
      const room = Math.max(0.08 * (most - least), 0.03);
      const [low, high] = [Math.min(Math.exp(least - room), 1 / leastRoom), Math.max(Math.exp(most + room), leastRoom)];
      return {
        xs: shift,
        ys: Float64Array.from(ratio, (v) => (v > 0 ? v : NaN)),
        x: d3.scaleLinear().domain([-reach, reach]),
        y: d3.scaleLog().domain([low, high]),
        labels: { x: "shift of the mean, in running σ", y: "standard deviation, measured / running" },
        format: { yTicks: logTicks(low, high, 6) },
        hollow: q ? (c) => !(q[c] < 0.01) : null,
        bars: se ? (c) => [1.96 * se[c], 1.96 * (scaleSe?.[c] || 0)] : null,
        note: "Gray box: too small to matter (0.2 σ, 10%)",
        key: q ? "Filled: shift of the mean beyond sampling error (false discovery rate 1%). Crosses: 95% confidence intervals over samples" : "",
        words: (c) => [
          `channel ${c}`,
          `shift ${number(shift[c])}${se ? ` ± ${number(1.96 * se[c], 2)}` : ""} running σ`,
          `standard deviation × ${number(ratio[c])}${scaleSe ? ` ± ${number(1.96 * scaleSe[c], 2)}` : ""}`,
          ...(q ? [`false discovery rate of the shift (q) ${number(q[c], 2)}`] : []),
        ],
        under(g, x, y, width, height) {
          const [top, bottom] = [y(Math.min(1.1, high)), y(Math.max(1 / 1.1, low))];
          const [left, right] = [x(Math.max(-0.2, -reach)), x(Math.min(0.2, reach))];
          g.append("rect").attr("class", "small-box").attr("x", left).attr("width", right - left).attr("y", top).attr("height", bottom - top);
          g.append("line").attr("class", "expected").attr("x1", x(0)).attr("x2", x(0)).attr("y1", 0).attr("y2", height);
          g.append("line").attr("class", "expected").attr("x1", 0).attr("x2", width).attr("y1", y(1)).attr("y2", y(1));
        },
      };
    },
  };
}

/** Standard deviation of the gradient at the input against that at the output. */
function gradientSpec() {
  return {
    title: "What the gradient does",
    description: "Channels by the standard deviation of the gradient at the output and at the input of the norm.",
    prepare(layer, columns) {
      const { dy_var: dy, dx_var: dx } = columns;
      const root = (v) => (v > 0 ? Math.sqrt(v) : NaN);
      if (!dy || !dx) return null;
      const [xs, ys] = [Float64Array.from(dy, root), Float64Array.from(dx, root)];
      const [kx, ky] = [sortedFinite(xs), sortedFinite(ys)];
      if (!kx.length || !ky.length) return null;
      const widen = (k) => [k[0] / 1.3, k[k.length - 1] * 1.3];
      const [x, y] = [d3.scaleLog().domain(widen(kx)), d3.scaleLog().domain(widen(ky))];
      return {
        xs,
        ys,
        x,
        y,
        labels: { x: "standard deviation of the gradient at the output", y: "at the input" },
        format: { xTicks: logTicks(...x.domain(), 4), yTicks: logTicks(...y.domain(), 6) },
        note: "Orange: equal at both",
        words: (c) => [
          `channel ${c}`,
          `at the output ${number(xs[c])}, at the input ${number(ys[c])}`,
          `gradient of γ ${number(columns.grad_gamma?.[c])}, of β ${number(columns.grad_beta?.[c])}`,
          `signal-to-noise ratio of γ ${number(columns.gamma_snr?.[c])}`,
          `share of the energy removed ${number(columns.energy_removed?.[c])}`,
        ],
        under(g, xScale, yScale, width) {
          const from = Math.max(x.domain()[0], y.domain()[0]);
          const to = Math.min(x.domain()[1], y.domain()[1]);
          if (from < to) {
            g.append("line").attr("class", "expected").attr("x1", xScale(from)).attr("x2", Math.min(xScale(to), width))
              .attr("y1", yScale(from)).attr("y2", yScale(to));
          }
        },
      };
    },
  };
}
