"""Which idea helps, by how much, and does the paper's effect appear: runs in pairs, statistics, findings."""
