"""The benchmark suite, installed with the package: ``fastlstm bench``."""
