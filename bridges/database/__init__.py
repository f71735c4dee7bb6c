"""The store on a database: SQLAlchemy Core, migrations by Alembic."""
