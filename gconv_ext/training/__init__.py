"""Training of classifiers with pytorch-lightning (the extra gconv_ext[train])."""
