"""The rooms of the SQL backend: schema, migrations, the one writer, and a store for each kind of thing."""
