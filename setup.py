"""What pyproject.toml cannot say: which packages there are, of which one has another name than its folder.

The folder kernels is the package ultron_kernels. Setuptools can find packages by itself, but it names them after their
folders. All else is in pyproject.toml.
"""

from setuptools import find_namespace_packages, setup

folders = find_namespace_packages(include=["ultron_cli*", "kernels", "kernels.*"], exclude=["*.__pycache__"])
setup(
    packages=[f"ultron_{name}" if name.startswith("kernels") else name for name in folders],
    package_dir={"ultron_kernels": "kernels"},
)
