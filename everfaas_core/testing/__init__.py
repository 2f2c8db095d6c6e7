"""What plugins are proved with: contract suites to inherit, fault injectors, and servers for tests. Needs pytest."""
