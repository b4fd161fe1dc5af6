"""What expressions can call: the language's own functions, cel-go's extensions that Kubernetes switches on, and
Kubernetes' libraries, a module each. A module has its declarations as lines and a Python function per overload."""
