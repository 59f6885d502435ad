"""The demo: every promise of the README seen to hold on this machine, in one run. Every figure comes from the run."""
