"""The study of processing elements: candidates, arrays of them, their area and speed."""
