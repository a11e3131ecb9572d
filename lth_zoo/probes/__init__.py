"""What the jobs of studies do that no search or training does: one file each."""
