"""The study of processing elements: candidates, arrays of them, and what each costs in LUTs."""
