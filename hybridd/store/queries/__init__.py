"""What is read from the database: pure functions of a connection and plain values.

Run them on the reader (``await database.reader.run(function, *args)``) or, when they write, inside the writer's
transaction (``await database.writer.call(lambda connection: …)``). Plain SQL: an ORM session costs more than the query.
"""
