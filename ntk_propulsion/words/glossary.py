"""How to read each number of a report."""

from ntk_propulsion.theory import distances

GLOSSARY = {
    "kernel": "K(x, x') sums, over the parameters that a tuning trains, the products of the two "
    "outputs' gradients. K_F counts every parameter, K_P only Propulsion's scaling vectors. Rows "
    "are examples (times outputs).",
    **distances.glossary(),
    "interval": "Brackets hold the interval over examples that the run computed.",
    "with and without the head": "The head is every module that comes after the encoder: the "
    "classifier or regressor and, where there is one, the pooler before it (BERT's, for one). It "
    "often carries most of a kernel, and two kernels that share it look alike for free.",
    "trace share": "The module's share of the trace of its kernel: how much of the kernel it is.",
    "effective rank": "tr(K)²/|K|², the participation ratio: how many directions carry the "
    "kernel. The entropy version is exp of the entropy of the eigenvalues' shares.",
    "condition number": "Largest over smallest eigenvalue.",
    "eigenvalues of two classes": "A probe of two classes has opposite logits, f_0 = -f_1. But "
    "for the classifier's own part the gradients are opposite too, so that half of the kernel's "
    "eigenvalues vanish up to rounding.",
    "target alignment": "The alignment of the kernel with the kernel of the labels.",
    "drift": "The kernel before against the kernel after training; a fixed kernel (CKA 1, raw "
    "error 0) is what NTK theory assumes.",
    "z and gain": "Propulsion multiplies a layer's output by z**k (the gain) for each neuron; z "
    "starts at 1. A z near 1 can still be a gain far from 1, because k is large.",
}
