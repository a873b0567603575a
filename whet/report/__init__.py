"""What a run tells: a page to open, tables for the terminal, a picture for a README."""
