"""Our ways against what a user would write or pick: equality is checked first, times are interleaved medians."""
