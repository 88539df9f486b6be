"""The contract between producers and workers: jobs, records, errors, wire names, storage. Imports no torch."""
