"""Alembic's entry: the node hands its connection over, `alembic` on a developer's command line opens one by URL."""

from alembic import context
from sqlalchemy import Connection, create_engine

from faas.store.tables import metadata


def run(connection: Connection) -> None:
    # SQLite can change a schema inside a transaction too; Alembic only does not expect it to.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None, "set sqlalchemy.url"
    with create_engine(url).begin() as opened:
        run(opened)
