"""The version that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mlcls-ray")
except PackageNotFoundError:  # a source tree on a Ray worker's path, shipped as a job's working directory
    __version__ = "0+source"
