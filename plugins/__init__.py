"""The bundled provider plugins. Each is a program, ``python -m plugins.<name>``, that speaks the public protocol."""
