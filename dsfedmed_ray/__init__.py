"""DSFedMed as a Ray simulator: federated medical segmentation at two scales.

The public entry points are the ``dsfedmed`` command line (:mod:`dsfedmed_ray.cli`) and
:func:`dsfedmed_ray.experiment.run`. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
