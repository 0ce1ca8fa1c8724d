"""Source code as data: unified diffs applied, Python looked through. Pure; runs nothing."""
