"""The pods of steps: their specification, their life in the cluster, their status and their log."""
