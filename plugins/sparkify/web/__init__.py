"""The page "Sparkify" in Airflow's web UI: what people listen to, and how the pipeline is doing."""
