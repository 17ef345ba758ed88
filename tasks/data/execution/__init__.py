"""Where the jobs of the data stage run: here, in processes of this machine, on a Ray or Dask cluster."""
