"""The claims and the rules that judge them, each written before its study's full run.

What an interval cannot decide is "not testable here", never a pass. Thresholds come from
`ntk_propulsion` or stand here with their reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.report.answer import CLOSE

SIGNIFICANCE = 0.05
EQUIVALENT = 0.02  # two points of accuracy: about what the paper's "holds" leaves room for
RESOLVED = 0.05  # five points: the half-width that a few hundred test examples can resolve


@dataclass(frozen=True)
class Rule:
    """A claim and the rule that judges it.

    Attributes:
        id: The claim's id; a letter behind it marks one of its parts.
        statement: The claim in brief.
        source: Where the paper has it; "ours" for questions that the paper does not answer.
        study: Whose numbers judge it.
        rule: When it holds, when it fails.
    """

    id: str
    statement: str
    source: str
    study: str
    rule: str


_CHAMPION = (
    "Over seeds, paired: {champion} minus each other. Holds if it is ahead of every other on "
    "average and its 95% t-interval (Bonferroni over the others) excludes 0 for at least one; "
    "fails if any other is ahead by an interval that excludes 0; otherwise not testable here."
)
_BOUND = (
    "Holds if no cell's failures exceed the bound: the lower end of the exact binomial interval "
    "(level 95%, Bonferroni over cells) of the failure rate is at most the bound wherever that is "
    "below 1 (elsewhere it is vacuous); fails otherwise; not testable if it is vacuous everywhere."
)
RULES = {
    rule.id: rule
    for rule in (
        Rule(
            "T1",
            "K_P approximates K_F in the NTK regime",
            "Theorem 1",
            "theorem",
            f"Per task, at theta_0, with and without the head: holds if the raw relative error is "
            f"at most {CLOSE} at the upper end of its interval; up to a scale if the best-scale "
            f"error is; fails if even the lower end is above {CLOSE}. The claim gets the worst "
            "verdict of all tasks and parts.",
        ),
        Rule(
            "T1b",
            "Propulsion's kernel is closer to full fine-tuning's than a random subset of as many "
            "parameters is (a control of ours)",
            "ours",
            "theorem",
            "Without the head, per task: unbiased CKA of Propulsion minus the mean over random "
            "subsets, 95% bootstrap over examples, paired. Holds if the interval lies above 0 on "
            "every task; fails if it lies below 0 on any; otherwise not testable here.",
        ),
        Rule(
            "T1c",
            "Of the steps from K_F to K_P, the random projection (the paper's argument) is the one "
            "that matters (a question of ours)",
            "ours",
            "theorem",
            "Error budget without the head: holds if on every task the angle of the step "
            "'sampling' is the largest of the four; fails if another is larger on every task; "
            "otherwise not testable here.",
        ),
        Rule(
            "T3",
            "Linearization: the output's change is its first-order Taylor expansion",
            "App. A",
            "regime",
            "Linearization error |f_t - f_lin| / |f_t - f_0| after training, 95% bootstrap over "
            "examples: holds if every interval (full fine-tuning and Propulsion, every task) ends "
            "at 0.1 or below (ntk_propulsion.measurements.regime); fails if any lies wholly above; "
            "otherwise not testable here.",
        ),
        Rule(
            "T4",
            "Fixed features: the gradient at step t is about the gradient at step 0",
            "App. C",
            "regime",
            "As T3, with the feature drift |J_t - J_0| / |J_0| of what each method trains.",
        ),
        Rule(
            "T5",
            "Heat maps of K_F, K_P and abs(K_F - K_P) closely resemble each other",
            "App. B, Fig. 6",
            "theorem",
            "As T1, with the head only, as in the paper: what an eye sees on one colour scale is "
            "the raw error, on two scales the best-scale error. The worst verdict of all tasks.",
        ),
        Rule(
            "T2a",
            "Johnson-Lindenstrauss bound 1 - 4 exp(-(eps^2 - eps^3) d/4) for Gaussian weights "
            "(inequality read as: the error is at most eps |x||y|)",
            "Theorem 1, App. A",
            "bounds",
            _BOUND + " Cells: width x eps, Gaussian rows of variance 1/d, fixed pairs.",
        ),
        Rule(
            "T2b",
            "The same bound for the pretrained weights and their inputs",
            "Theorem 1, App. A",
            "bounds",
            "Holds if in every scaled linear layer, at every eps where the bound is below 1, the "
            "share of pairs outside eps is at most the bound; fails if in any layer it is not. "
            "(One weight: the pairs are not independent, so no interval.)",
        ),
        Rule(
            "T2c",
            "The same exponent, with d the number of output neurons, for Propulsion's own "
            "projection of the gradients (Gaussian weights at the model's real inputs and "
            "cotangents)",
            "App. A, as used in the proof",
            "bounds",
            _BOUND + " Cells: layer x eps, failures over redraws of the weights and diagonal "
            "entries; the binomial counts redraws (entries of one redraw are not independent).",
        ),
        Rule(
            "T2d",
            "The bound with Gamma2 and GammaInf in place of d (ours), where its assumptions hold: "
            "Gaussian weights",
            "ours",
            "bounds",
            _BOUND + " Cells as for T2c.",
        ),
        Rule(
            "T2e",
            "The bound with Gamma2 for the pretrained weights, where its assumptions need not hold",
            "ours",
            "bounds",
            "As T2b: share of diagonal entries outside eps at most the mean bound, in every layer.",
        ),
        Rule(
            "W1",
            "K_P approaches K_F, up to a scale, as width grows at random initialisation",
            "Theorem 1, read as a limit",
            "width",
            "Slope of log(best-scale error) on log(width), 95% t-interval over seeds: holds (up to "
            "a scale) if the whole interval lies below 0 and the error at the largest width is at "
            f"most {CLOSE}; fails if the interval contains 0 or lies above it, or if the error at "
            "the largest width is above it at the lower end of its own interval.",
        ),
        Rule(
            "A1a",
            "Accuracy depends on the degree, with a best value inside the range",
            "Sec. 4.5, Fig. 5",
            "degree",
            f"Learning rate fixed, analysis of variance over degrees (seeds as blocks) at "
            f"{SIGNIFICANCE}: holds if it is significant and the best mean is at neither end of "
            "the range; fails if it is significant and the best is at an end; otherwise not "
            "testable here.",
        ),
        Rule(
            "A1b",
            "The effect of the degree is more than a step size (a question of ours)",
            "ours",
            "degree",
            "The same analysis with the learning rate matched (lr / k under Adam): holds if it is "
            "significant; fails if the spread over degrees is smaller than with the rate fixed at "
            f"{SIGNIFICANCE} (F-test on the variances of the means); otherwise not testable here.",
        ),
        Rule(
            "A2",
            "Position: all layers best; Q, K and V together better than each; embedding lowest",
            "Table 5",
            "position",
            "Over seeds, paired, 95% t-intervals (Bonferroni over the comparisons named): holds if "
            "every named difference is positive on average and one interval at least excludes 0; "
            "fails if any interval lies below 0; otherwise not testable here.",
        ),
        Rule(
            "A3",
            "Initialising z at 1 is best",
            "App. F",
            "initialisation",
            _CHAMPION.format(champion="z = 1"),
        ),
        Rule(
            "A5",
            "Average pooling is the best pooling, by up to 1.06 points",
            "App. F, Fig. 11",
            "pooling",
            _CHAMPION.format(champion="average pooling (mean over numbers of vectors)"),
        ),
        Rule(
            "A6",
            "Accuracy holds across the number of Propulsion layers",
            "App. F",
            "layers",
            f"Metric with all layers minus metric with fewer, over seeds, paired 95% t-interval "
            f"(Bonferroni): holds if every interval lies within +-{EQUIVALENT}; fails if any lies "
            "wholly outside; otherwise not testable here.",
        ),
        Rule(
            "D1",
            "Kernel distance predicts the task metric across configurations (a question of ours)",
            "ours",
            "initialisation, position, layers, pooling",
            "Spearman correlation of best-scale error (without head, at the start) with the "
            "metric, both averaged over seeds; 95% bootstrap over configurations: holds if the "
            "interval lies below 0; fails if it lies above -0.3; otherwise not testable here. "
            "Distances that agree to four digits count as equal.",
        ),
        Rule(
            "A4",
            "After training z lies in [0.98, 1.02]",
            "App. F",
            "regime",
            "Holds if at least 99% of z lie there on every task; fails otherwise; not testable "
            "here if Adam's learning rates add up to less than 0.04, twice the way out.",
        ),
        Rule(
            "E1",
            "355.3M parameters become 0.086M trainable ones",
            "abstract",
            "parameters",
            "Holds if the two numbers are those of one model (RoBERTa-base or RoBERTa-large, 2 "
            "labels, every layer scaled), within 0.1M and to the digits printed; fails otherwise.",
        ),
        Rule(
            "O1",
            "K_P is as close to K_F from other initialisations of z as from z = 1 (the paper's "
            "open question, as a hypothesis of ours)",
            "limitations",
            "initialisation",
            "Unbiased CKA of K_P with K_F, without head, at z = 1 minus at the other start, paired "
            "over seeds, 95% t-interval (Bonferroni): holds if none excludes 0; fails if any lies "
            "above 0.",
        ),
        Rule(
            "O3",
            "K_P stays as close to K_F under domain shift (the paper's open question, as a "
            "hypothesis of ours)",
            "limitations",
            "shift",
            "Kernel regression from the source domain: drop of held-out accuracy from source to "
            "each other domain under K_P minus that under K_F, 95% bootstrap over test examples: "
            f"holds if every interval lies within +-{RESOLVED}; fails if any lies wholly above "
            f"{RESOLVED}; otherwise not testable here. (Five points: the half-width that a few "
            "hundred test examples can resolve.)",
        ),
        Rule(
            "K1",
            "Few-shot fine-tuning shows kernel behaviour (the premise of the theorem)",
            "ours, after Malladi et al.",
            "fewshot",
            "Linearization error and feature drift after training, per task, head, number of "
            "examples per class and method, 95% t-interval over seeds: holds if every interval "
            "ends at 0.5 or below (at least weakly, ntk_propulsion.measurements.regime); fails if "
            "any lies wholly above; otherwise not testable here.",
        ),
        Rule(
            "K2",
            "The kernel solve reaches fine-tuning's accuracy, few-shot",
            "ours, after Malladi et al.",
            "fewshot",
            "Accuracy of fine-tuning minus that of ridge regression with the kernel at theta_0 "
            "(offset f_0, ridge by cross-validation), paired over seeds, 95% t-interval "
            "(Bonferroni over cells), per task, head, number of examples and method: holds if "
            f"every interval lies within +-{RESOLVED}; fails if any lies wholly outside; "
            "otherwise not testable here.",
        ),
        Rule(
            "P1",
            "The kernel predicts the training of wide networks: the error vanishes with width "
            "(validation of ours)",
            "ours",
            "prediction",
            "Slope of log(relative error of the predicted outputs, test examples, last step) on "
            "log(width), 95% t-interval over seeds: holds if the interval reaches -1/2 or lies "
            "below it; fails if it lies wholly above.",
        ),
        Rule(
            "P2",
            "The kernel at theta_0 predicts the training of the pretrained transformer",
            "Theorem 1, as its use asks",
            "prediction",
            "Relative error |predicted - real| / |real - f_0| of the outputs on test examples "
            "after the last step of full-batch descent on squared loss, per method, 95% "
            "t-interval over seeds: holds if every interval ends at 0.1 or below "
            "(ntk_propulsion.measurements.regime); fails if any lies wholly above; otherwise not "
            "testable here.",
        ),
        Rule(
            "E2",
            "Propulsion converges faster than LoRA and AdaLoRA",
            "Fig. 3",
            "convergence",
            "Steps until the test metric first reaches 90% of the way from before training to the "
            "best that full fine-tuning reaches on that task, size and seed; every method at the "
            "learning rate that the same sweep chose for it; a run that never does counts as one "
            "evaluation more than it had. Mean over tasks and sizes of log2(steps of LoRA, AdaLoRA "
            "/ steps of Propulsion), paired over seeds, 95% t-interval (Bonferroni over the two): "
            "holds if both lie above 0; fails if either lies below; otherwise not testable here.",
        ),
        Rule(
            "E2b",
            "The kernel's spectrum predicts how many steps a training takes (a question of ours)",
            "ours",
            "speed",
            "Full-batch descent on squared loss at half the stable rate of each method's kernel: "
            "log2(measured / predicted steps) to each loss level, per method, 95% t-interval over "
            "seeds: holds if every interval lies within +-0.5 (a factor of 1.41); fails if any "
            "lies wholly outside; otherwise not testable here.",
        ),
        Rule(
            "E3",
            "Propulsion trains in less memory: 17.2 GB against over 26.0 GB",
            "Fig. 4",
            "cost",
            "Median peak memory of Propulsion's training over each other parameter-efficient "
            "method's, in one run, interleaved, 95% bootstrap over rounds: holds if every ratio's "
            "interval ends at 17.2/26.0 = 0.66 or below; fails if any lies wholly above; otherwise "
            "not testable here. The paper's models and batch sizes are not given.",
        ),
        Rule(
            "O2",
            "A step of Propulsion takes no longer than one of LoRA (the paper's open question of "
            "time, memory and energy, as a hypothesis of ours)",
            "limitations",
            "cost",
            "Seconds a step of Propulsion over LoRA's, paired by round, interleaved, 95% bootstrap "
            "of the median over rounds: holds if the interval ends at 1 or below; fails if it lies "
            "wholly above; otherwise not testable here. On the hardware at hand only.",
        ),
    )
}
