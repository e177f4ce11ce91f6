"""Planning: the experiment that `tuner init` proposes for a file, with reasons."""
