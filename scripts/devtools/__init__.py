"""Tools that the programs in scripts/ and the tests share: commands, images, charts, deployments, clusters, Airflow's API."""
