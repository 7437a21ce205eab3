"""Task files for lm-eval: the seven CETVEL tasks that Diffutron is compared on, and turkmorfbench.

CETVEL's protocol: no example in the prompt, every choice scored by its log-likelihood, the highest wins. Labels, splits
and key phrases are CETVEL's; what stands around them, and the six grades of ``sts_tr``, are ours.
"""
