"use strict";

/** The colour of each step of a plan: chains stand out, conversions too, sub-models stay back. */
const colorsOf = (plan) => {
  const CHAINS = [217, 265, 170, 325, 190, 300, 140, 240];
  const SUB_MODELS = ["hsl(215 10% 50%)", "hsl(40 14% 48%)"];
  const counts = { chain: 0, onnxruntime: 0, conversion: 0 };
  return plan.map(({ kind }) => {
    const count = counts[kind]++;
    if (kind === "chain") return `hsl(${CHAINS[count % CHAINS.length]} 70% 52%)`;
    return kind === "conversion" ? "hsl(28 90% 50%)" : SUB_MODELS[count % SUB_MODELS.length];
  });
};
