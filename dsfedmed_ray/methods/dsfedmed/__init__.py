"""DSFedMed (arXiv 2601.16073): the stages, and the pipeline that joins them."""
