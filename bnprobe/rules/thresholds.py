"""The thresholds of the rules, by the names under which a user's settings may change them."""

from __future__ import annotations

from dataclasses import dataclass

from bnprobe.recording import terms


@dataclass(frozen=True)
class Limits:
    """Every threshold; `[tool.bnprobe.thresholds]` replaces them by these names."""

    shift: float = 0.5
    """Root mean square shift of a layer, in running σ, above which its mean counts as shifted: the
    CIFAR ResNet-20 on its own clean test images stays below 0.2, on mildly compressed ones below 0.3."""

    variance_ratio: float = 2.0
    """Typical variance relative to the running variance, up or down, beyond which the scale counts as shifted."""

    groups: float = 0.3
    """Deviation from the running statistics, in mean and std together, from which statistics that do not know of groups
    among the samples are reported, where groups explain it."""

    slight: float = 0.3
    """Deviation from the running statistics, in mean and std together, below the thresholds of a shift, from which there is
    a note where it begins inside the network: trained networks on their own data stay below."""

    kinds_apart: float = 0.5
    """Distance between the means of two kinds of batches, in standard deviations within a kind, above which they are
    reported."""

    batches_apart: float = 0.5
    """Distance of a batch's mean from that of the batch before, in standard deviations within a batch, above which samples
    of one batch are reported as alike while the model learns: steps of the weights move it by less than 0.1."""

    ranks_apart: float = 0.2
    """How far the inputs of two ranks lie apart, in standard deviations, or their running statistics, in running ones, from
    which it has a size: see `VISIBLE_SHIFT` of `measures.terms`."""

    samples_apart: float = 0.3
    """How far the means of samples lie apart, in standard deviations within a sample, from which it matters whether an
    instance norm uses each sample's own statistics."""

    surely_shifted: float = 0.5
    """Share of channels with a shift beyond sampling error (q < 0.01) above which a shifted mean is reported; the same for
    the scale: a real mobilenet_v2 on 32 photographs has 2.3 times the running variance at one norm of 52, in 4%."""

    constant_gamma: float = terms.NEAR_ZERO
    """|γ| below which a channel's output hardly varies: Frankle, Schwab & Morcos 2020 use the same."""

    few_images: float = 30
    """Samples below which a standard error over samples says little."""

    same_samples: float = 0.1
    """Share of the samples of a batch that are one and the same, from which it is reported: samples that are drawn again and
    again come twice or three times."""

    samples_alike: float = 2.0
    """Samples that count as one, at least, from which samples of a batch are reported as alike."""

    formula_mismatch: float = terms.FORMULA_MISMATCH
    """Difference of output and formula, in units of the largest output, above which a layer does more than its kind."""

    channel_shift: float = 3.0
    """Running standard deviations that a single channel's mean may be away where the rest of its norm matches: trained
    networks on their own data reach 1.2."""

    channel_scale: float = 4.0
    """Factor that a single channel's standard deviation may be off, in either direction: they reach 2.3."""

    large_mismatch: float = 0.1
    """Difference of output and formula, in units of the largest output, from which an unexplained one is a warning."""

    rounding_step: float = 1e-3
    """Step of rounding at the input's mean, in its standard deviations, from which float32 loses what the norm is for:
    the mean is 8,000 standard deviations then."""

    rounding_step_half: float = 0.1
    """The same for inputs in half precision, whose step is rarely below a hundredth: 100 standard deviations in float16,
    13 in bfloat16."""

    saturated_outputs: float = 0.01
    """Share of a layer's outputs at its smallest or largest value, from which they are saturated."""

    constant_rows: float = 0.01
    """Share of rows of equal values, or of positions of zeros in sequences, from which they are reported."""

    gradient_step: float = 30.0
    """Factor between the gradient lengths at two norms that follow each other, beyond which it counts as a break."""

    gradient_gap: float = 1e-2
    """Relative violation of an identity that rounding, half precision included, does not explain."""

    silent_snr: float = 0.1
    """Signal-to-noise ratio of the gradients of γ and β, two standard errors up, under which they are noise."""

    dead_sigmas: float = terms.DEAD_SIGMAS
    """Standard deviations that a dead channel would have to exceed to be positive: a Gaussian does so once in a billion."""

    dead_reach: float = terms.DEAD_REACH
    """Output at `dead_sigmas` below which a channel is dead: nothing that a next layer would notice."""

    many_channels: float = 0.25
    """Share of a layer's channels from which a finding about channels is a warning, and not just a note."""

    decayed_filter: float = 0.05
    """Length of a channel's filter, as a share of the layer's median, below which it has decayed."""

    few_values: float = 32.0
    """Values per channel in one call below which the variance of a batch is noisy: its relative error is
    √(2/(n − 1)) for independent Gaussian values, a quarter at 32, and more for positions of one sample."""

    no_values: float = 2.0
    """Values behind one mean and variance up to which a norm outputs 0 or ±1, whatever the input."""

    high_momentum: float = 0.5
    """Momentum from which running statistics average over (2 − m)/m = 3 batches or fewer."""

    initial_weight: float = 0.1
    """Weight (1 − m)^k that the initial 0 and 1 still have in the running statistics, from which these count as young."""

    branch_off: float = 0.01
    """Share of a residual branch in the variance of its block, below which it does nothing."""

    scale_off: float = 1e-6
    """The same for a branch with a layer scale, whose size is learned: 1e-12 where it is still at its initial 1e-6."""

    outlier_energy: float = 0.5
    """Share of the inputs' energy in outlier channels, above which these, and not the others, set the divisor."""

    outlier_energy_tokens: float = 0.9
    """The same of tokens, each divided by its own scale: a healthy SmolLM2-135M has up to .85 in 4 dimensions of 576, by the
    text, small transformers up to .32."""

    sink_scale: float = 10.0
    """Scale of the loudest token in median scales, from which tokens at some positions are told of."""

    sink_position: float = 0.35
    """Share of the variance of log scales that lies between positions, from which position makes them loud."""

    largest_logit: float = 100.0
    """Absolute logit of attention above which it saturates: SmolLM2-135M reaches 54; the clipping of Muon begins here."""

    qk_bound: float = 2000.0
    """Largest logit that weights allow, above which files are worth a look: SmolLM2-135M allows 926, a network that was
    trained with too large a rate 4,568."""

    uneven_attention: float = 0.25
    """Mean entropy of attention, as a share of the largest possible, below which it looks at next to nothing: layers of
    trained transformers are at .28 and above."""

    attention_factor: float = 2.0
    """Times 1/√d by which logits of attention are multiplied, above which that is no choice of a usual network."""

    overwritten: float = 30.0
    """Relative change of a stream between two norms, above which what was there is lost: trained networks reach 20."""

    unchanged: float = 1e-4
    """Relative change of a stream below which nothing was added."""

    common_direction: float = 0.9
    """Mean cosine between tokens above which they are all alike: trained transformers reach .73."""

    negative_gains: float = 0.2
    """Share of negative γ in a norm above which 1 is missing from them, where it is so in most norms."""

    decayed_gain: float = 1e-6
    """|γ| below which it was decayed to nothing."""

    few_tokens: float = 1000
    """Tokens from which few sequences are enough for what is said of tokens."""

    half_headroom: float = 2.0
    """How often the largest input must fit into half precision: the largest of other samples may be twice as large."""

    gap: float = 0.5
    """Distance of a layer's inputs or outputs between two recordings, in standard deviations, from which they differ:
    the CIFAR ResNet-20 stays below 0.35 between train and eval mode on mildly compressed images, and below 0.1
    between two halves of them."""

    gap_of_frozen: float = 0.1
    """Distance of running statistics under the very same γ and β, in standard deviations, from which it is a warning."""

    tensor_scale: float = 10.0
    """Factor between the sizes of a tensor on two sides, up or down, that training on does not make."""

    fired: float = 1e-3
    """Share of positive outputs from which a channel counts as active before it stopped being positive."""

    common_factor: float = 5.0
    """Factor of the running means relative to those that the weights before imply, from which all are scaled. In trained
    networks it is .74 to 1.04 per norm, and up to 4.4 where the norm before is one term of an unseen sum."""

    half_overflow: float = terms.HALF_MAX
    """Largest number of half precision (float16)."""


DEFAULT = Limits()
