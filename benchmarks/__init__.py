"""Speed and memory against peers, side by side in one run. What they printed is in RESULTS.md."""
