"""Does self-supervised pretraining help on my data, which method, how many labels is it worth."""

__version__ = "0.1.0"
