"""Words for the heads of the page's tables: the names of columns are for code, and stand where a head is hovered over."""

from __future__ import annotations

_WORDS = {
    "n_channels": "channels",
    "normalized_by": "normalized by",
    "n_batches_tracked": "batches tracked",
    "n_images": "samples",
    "n_nonfinite": "not finite",
    "feeder": "fed by",
    "follows": "followed by",
    "gamma": "γ",
    "beta": "β",
    "gamma_abs_median": "typical |γ|",
    "gamma_negative": "share γ < 0",
    "running_mean": "running mean",
    "running_var": "running variance",
    "pre_mean": "input mean",
    "pre_var": "input variance",
    "post_mean": "output mean",
    "post_var": "output variance",
    "pre_skew": "skewness",
    "pre_kurtosis": "excess kurtosis",
    "pre_skew_median": "typical skewness",
    "pre_kurtosis_median": "typical excess kurtosis",
    "fires": "share > 0",
    "fires_median": "typical share > 0",
    "never_positive": "never > 0",
    "half_headroom": "float16 headroom",
    "own_mean": "mean subtracted",
    "own_sd": "divided by",
    "own_log_var_sd": "log variance, sd between samples",
    "shift": "mean off by (σ)",
    "shift_se": "± (σ)",
    "scale_ratio": "sd / running sd",
    "shift_rms": "means off by (σ)",
    "var_ratio_median": "variance / running",
    "mean_moved": "means shifted",
    "scale_moved": "scales shifted",
    "kl_median": "typical KL",
    "w2_rms": "distance (σ)",
    "affine_by": "statistics",
    "eps_dominated": "share changed by eps",
    "folded_spread": "range of folded weights",
    "bits_lost_median": "bits lost, typical",
    "bits_lost_worst": "bits lost, worst",
    "mean_energy": "energy in the mean",
    "outliers": "outlier channels",
    "outlier_channels": "which",
    "rms_ratio_max": "largest / typical",
    "branch_var": "branch variance",
    "skip_var": "skip variance",
    "branch_share": "branch share",
    "branch_share_initial": "at initialization",
    "n_backward": "backward passes",
    "grad_out": "gradient at output",
    "grad_in": "gradient at input",
    "grad_scale": "gradient × token scale",
    "grad_ratio": "in / out",
    "grad_gamma": "gradient of γ",
    "grad_beta": "gradient of β",
    "gamma_snr": "signal / noise of γ",
    "energy_removed_layer": "gradient removed",
    "gamma_snr_pooled": "signal / noise, γ",
    "gamma_snr_upper": "at most, γ",
    "beta_snr_pooled": "signal / noise, β",
    "beta_snr_upper": "at most, β",
    "dy_kurtosis": "kurtosis of the gradient",
    "no_gradient": "without gradient",
    "w_angle_median": "typical rotation",
    "gap_centre": "check: center",
    "gap_map": "check: scale",
    "gap_weight": "check: weights",
    "change": "largest difference",
    "affine_gap": "γ and β (|γ|)",
    "running_gap": "running statistics (σ)",
    "pre_gap": "inputs (σ)",
    "pre_noise": "inputs, by chance (σ)",
    "pre_changed_share": "inputs changed",
    "pre_w1": "distance of inputs (σ)",
    "pre_w1_median": "typical distance of inputs (σ)",
    "pre_w1_noise": "distance by chance (σ)",
    "pre_shift": "mean of inputs, B − A (σ)",
    "pre_shift_se": "± (σ)",
    "pre_ratio": "sd of inputs, B / A",
    "post_gap": "outputs (σ)",
    "post_noise": "outputs, by chance (σ)",
    "post_changed_share": "outputs changed",
    "fires_change_mean": "change of the share > 0",
    "went_silent": "no longer > 0",
}


def heading(name: str) -> str:
    """A column's head in words; a name that is words already stays."""
    for side in ("a", "b"):
        if name.endswith(f"_{side}"):
            return f"{heading(name[:-2])}, {side.upper()}"
    return _WORDS.get(name, name)


def hint(name: str, meaning: str) -> str:
    """What a head shows where it is hovered over: its meaning, with the column's name where the head is other words."""
    if not meaning or heading(name) == name:
        return meaning
    return f"{name}: {meaning}"
