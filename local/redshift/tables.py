"""CREATE TABLE and ALTER TABLE: what Redshift says about tables, made fit for PostgreSQL."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.expressions import DataType

from local.redshift.allowlist import refusal, words
from local.redshift.errors import SqlError, unsupported

Type = DataType.Type

# https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html: kind, most bytes, default
_CHARACTER_TYPES = {
    Type.CHAR: (Type.CHAR, 4096, 1),
    Type.NCHAR: (Type.CHAR, 4096, 1),
    Type.BPCHAR: (Type.CHAR, 4096, 256),
    Type.VARCHAR: (Type.VARCHAR, 65535, 256),
    Type.NVARCHAR: (Type.VARCHAR, 65535, 256),
    Type.TEXT: (Type.VARCHAR, 65535, 256),
}

_ZONE_MAPPED_TYPES = (Type.SMALLINT, Type.INT, Type.BIGINT, Type.DATE, Type.TIMESTAMP, Type.TIMESTAMPTZ)


def sized_type(data_type: exp.DataType, *, in_column: bool) -> exp.DataType:
    """
    Return a type with the length or precision that Redshift gives it when none is written.

    :param data_type: the type as written
    :param in_column: whether it is a column's; if not, a cast's
    :raises SqlError: 22023 when the length or precision is out of range
    """
    parameters = [parameter.name.upper() for parameter in data_type.expressions]
    kind = data_type.this
    if kind in _CHARACTER_TYPES:
        kind, most, default = _CHARACTER_TYPES[kind]
        if parameters:
            length = most if parameters == ["MAX"] else int(parameters[0])
            if not 1 <= length <= most:
                raise SqlError(f"length of type {kind.value} must be between 1 and {most}", "22023")
            parameters = [str(length)]
        # In an expression, the value decides how long a VARCHAR is
        elif in_column or kind is Type.CHAR:
            parameters = [str(default)]
    elif kind is Type.DECIMAL:
        # https://docs.aws.amazon.com/redshift/latest/dg/r_Numeric_types201.html
        parameters += ["18", "0"][len(parameters) :]
        if not 1 <= int(parameters[0]) <= 38:
            raise SqlError("DECIMAL precision must be between 1 and 38", "22023")
    return exp.DataType(
        this=kind,
        expressions=[exp.DataTypeParam(this=exp.Literal.number(p)) for p in parameters],
        nested=False,
    )


_ENCODINGS = (
    *("auto", "raw", "az64", "bytedict", "delta", "delta32k", "lzo", "mostly8", "mostly16", "mostly32"),
    *("runlength", "text255", "text32k", "zstd"),
)


def _literal(value: str) -> str:
    return exp.Literal.string(value).sql(Postgres)


def _oid(table: exp.Table) -> str:
    """Return an expression for PostgreSQL's number of a table."""
    return f"{_literal(table.sql(Postgres, identify=True))}::regclass"


@dataclass(frozen=True)
class _Key:
    """A key that the client declared, which Redshift records and does not enforce."""

    kind: str
    columns: tuple[str, ...]
    name: str | None = None
    references: exp.Schema | exp.Table | None = None


def create(tree: exp.Create) -> tuple[str, ...]:
    """
    Make a CREATE fit for PostgreSQL, and return the statements to run after it.

    :param tree: the statement, changed in place
    """
    tree.set("no_schema_binding", None)
    if tree.args["kind"] != "TABLE":
        return ()
    schema = tree.this if isinstance(tree.this, exp.Schema) else None
    table = schema.this if schema else tree.this
    properties = tree.args.get("properties")
    then = _attributes(table, schema.expressions if schema else [], properties)
    sorted_ = tree.find(exp.SortKeyProperty)
    temporary = table.name.startswith("#") or (properties and properties.find(exp.TemporaryProperty))
    tree.set("properties", exp.Properties(expressions=[exp.TemporaryProperty()]) if temporary else None)
    keys = _take_keys(schema) if schema else []
    then += [_record(table, keys)] if keys else []
    if schema and sorted_ and not temporary:
        then += _zone_maps(table, schema)
    return tuple(then)


def _zone_maps(table: exp.Table, schema: exp.Schema) -> list[str]:
    """
    Return the statement that gives a sorted table what stands in for Redshift's zone maps: a BRIN index.

    Redshift keeps the least and the greatest value of each block of each column, and skips blocks by them
    (https://docs.aws.amazon.com/redshift/latest/dg/t_Sorting_data.html).
    """
    columns = [
        column.name
        for column in schema.expressions
        if isinstance(column, exp.ColumnDef) and column.args["kind"].this in _ZONE_MAPPED_TYPES
    ]
    if not columns:
        return []
    names = ", ".join(_literal(column) for column in columns)
    return [f"SELECT rs_catalog.create_zone_maps({_oid(table)}, ARRAY[{names}])"]


def _attributes(table: exp.Table, elements: list[exp.Expr], properties: exp.Properties | None) -> list[str]:
    """
    Return the statements that store how columns are encoded, distributed and sorted, for PG_TABLE_DEF.

    :raises SqlError: 42703 for a key of a column that the table does not have
    """
    columns = {column.name: column for column in elements if isinstance(column, exp.ColumnDef)}
    encodings, distributed, sorted_ = dict.fromkeys(columns, ""), [], []
    for name, column in columns.items():
        for constraint in column.args.get("constraints") or []:
            match constraint.kind:
                case exp.EncodeColumnConstraint() as encode:
                    encodings[name] = _encoding(encode.name)
                case exp.DistKeyProperty():
                    distributed.append(name)
                case exp.SortKeyProperty():
                    sorted_.append(name)
    for declared in properties.expressions if properties else []:
        if isinstance(declared, exp.DistKeyProperty):
            distributed.append(declared.name)
        elif isinstance(declared, exp.SortKeyProperty):
            sorted_ += [column.name for column in declared.this or []]
    for name in (*distributed, *sorted_):
        if columns and name not in columns:
            raise SqlError(f'column "{name}" named in a distribution or sort key does not exist', "42703")
    likes = [element.this for element in elements if isinstance(element, exp.LikeProperty)]
    rows = ", ".join(
        f"({_literal(name)}, {_literal(encodings.get(name, ''))}, {name in distributed},"
        f" {sorted_.index(name) + 1 if name in sorted_ else 0})"
        for name in {**encodings, **dict.fromkeys(distributed), **dict.fromkeys(sorted_)}
        if encodings.get(name) or name in distributed or name in sorted_
    )
    return [
        *(f"SELECT rs_catalog.inherit_attributes({_oid(table)}, {_oid(parent)})" for parent in likes),
        *(
            [f"SELECT rs_catalog.set_attributes({_oid(table)}, ARRAY[{rows}]::rs_catalog.attributes[])"]
            if rows
            else []
        ),
    ]


def _encoding(name: str) -> str:
    """
    Return an encoding as PG_TABLE_DEF writes it: empty where Redshift is to choose.

    https://docs.aws.amazon.com/redshift/latest/dg/c_Compression_encodings.html

    :raises SqlError: 42601 when there is none of this name
    """
    encoding = name.lower()
    if encoding not in _ENCODINGS:
        raise SqlError(f'encoding "{name}" is not known', "42601", f"there are {', '.join(_ENCODINGS)}")
    return {"raw": "none", "auto": ""}.get(encoding, encoding)


def _take_keys(schema: exp.Schema) -> list[_Key]:
    """Make the columns of a new table fit for PostgreSQL, take the keys out and return them."""
    keys: list[_Key] = []
    kept: list[exp.Expr] = []
    checks: list[exp.Expr] = []
    for element in schema.expressions:
        if isinstance(element, exp.PrimaryKey | exp.ForeignKey | exp.Constraint):
            keys.append(_table_key(element))
            continue
        if isinstance(element, exp.ColumnDef):
            keys += _column(element)
            checks += _byte_limit(element)
        elif isinstance(element, exp.LikeProperty):
            # The byte limits of character columns are constraints here
            element.append("expressions", exp.Property(this="INCLUDING", value=exp.var("CONSTRAINTS")))
        elif not isinstance(element, exp.Identifier):
            raise refusal(words(type(element).__name__))
        kept.append(element)
    primary = {column for key in keys if key.kind == "PRIMARY KEY" for column in key.columns}
    for column in kept:
        if (
            isinstance(column, exp.ColumnDef)
            and column.name in primary
            and not column.find(exp.NotNullColumnConstraint)
        ):
            column.append("constraints", exp.ColumnConstraint(kind=exp.NotNullColumnConstraint()))
    schema.set("expressions", kept + checks)
    return keys


def _column(column: exp.ColumnDef) -> Iterator[_Key]:
    """Make a column's definition fit for PostgreSQL, and yield the keys that it declares."""
    column.set("kind", sized_type(column.args["kind"], in_column=True))
    kept: list[exp.Expr] = []
    for constraint in column.args.get("constraints") or []:
        match constraint if isinstance(constraint, exp.Property) else constraint.kind:
            case exp.PrimaryKeyColumnConstraint():
                yield _Key("PRIMARY KEY", (column.name,))
            case exp.UniqueColumnConstraint():
                yield _Key("UNIQUE", (column.name,))
            case exp.Reference() as reference:
                yield _Key("FOREIGN KEY", (column.name,), references=reference.this)
            case exp.GeneratedAsIdentityColumnConstraint() as identity:
                _identity(identity)
                kept.append(constraint)
            case exp.NotNullColumnConstraint() | exp.DefaultColumnConstraint():
                kept.append(constraint)
    column.set("constraints", kept)


def _identity(identity: exp.GeneratedAsIdentityColumnConstraint) -> None:
    # IDENTITY takes no value from INSERT, GENERATED BY DEFAULT AS IDENTITY does:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_TABLE_NEW.html
    identity.set("this", identity.args.pop("on_null", None) is None)
    if int(identity.args["increment"].name) < 1 or isinstance(identity.args["start"], exp.Neg):
        raise unsupported("IDENTITY with a negative seed or step")
    identity.set("minvalue", exp.Literal.number(0))


def _byte_limit(column: exp.ColumnDef) -> Iterator[exp.Constraint]:
    """
    Yield the check that a text's bytes fit: Redshift's lengths are in bytes, PostgreSQL's in characters.

    Its name begins with the type, for the error message.
    """
    kind = column.args["kind"]
    if kind.this in (Type.VARCHAR, Type.CHAR):
        length = kind.expressions[0].name
        type_name = f"{'character' if kind.this is Type.CHAR else 'character varying'}({length})"
        bytes_ = exp.Anonymous(this="OCTET_LENGTH", expressions=[exp.column(column.name, quoted=True)])
        check = exp.LTE(this=bytes_, expression=exp.Literal.number(length))
        yield exp.Constraint(
            this=exp.to_identifier(f"{type_name} {zlib.crc32(column.name.encode()):08x}", quoted=True),
            expressions=[exp.CheckColumnConstraint(this=check)],
        )


def _table_key(element: exp.Expr) -> _Key:
    name = None
    if isinstance(element, exp.Constraint):
        name, element = element.name, element.expressions[0]
    match element:
        case exp.PrimaryKey():
            return _Key("PRIMARY KEY", tuple(c.name for c in element.expressions), name)
        case exp.UniqueColumnConstraint():
            return _Key("UNIQUE", tuple(c.name for c in element.this.expressions), name)
        case exp.ForeignKey():
            columns = tuple(c.name for c in element.expressions)
            return _Key("FOREIGN KEY", columns, name, element.args["reference"].this)
    raise refusal(words(type(element).__name__))


def _record(table: exp.Table, keys: list[_Key]) -> str:
    """Return the statement that stores a new table's keys."""

    def text(value: str | None) -> str:
        return "NULL" if value is None else _literal(value)

    def names(columns: tuple[str, ...]) -> str:
        return text("{" + ",".join(f'"{c}"' for c in columns) + "}")

    def values(key: _Key) -> str:
        target, columns = key.references, ()
        if isinstance(target, exp.Schema):
            target, columns = target.this, tuple(column.name for column in target.expressions)
        table = target.sql(Postgres, identify=True) if target else None
        return ", ".join((text(key.kind), text(key.name), names(key.columns), text(table), names(columns)))

    rows = ", ".join(f"({values(key)})" for key in keys)
    oid = _oid(table)
    return (
        "INSERT INTO rs_catalog.table_keys"
        f" SELECT {oid}, kind, name, columns::text[], target::regclass, target_columns::text[]"
        f" FROM (VALUES {rows}) AS key (kind, name, columns, target, target_columns)"
        f" WHERE NOT EXISTS (SELECT FROM rs_catalog.table_keys WHERE table_id = {oid})"
    )


def alter(tree: exp.Alter) -> tuple[str, ...]:
    """
    Make an ALTER TABLE fit for PostgreSQL, and return the statements to run after it.

    :param tree: the statement, changed in place
    :raises SqlError: when Redshift, or this, does not know the change
    """
    actions = tree.args["actions"]
    if all(isinstance(action, exp.AlterSortKey | exp.AlterDistStyle) for action in actions):
        return _alter_keys(tree)
    if len(actions) != 1:
        raise unsupported("ALTER TABLE with several actions", "Redshift adds one column a statement")
    action, oid = actions[0], _oid(tree.this)
    match action:
        case exp.ColumnDef():
            if action.find(exp.DistKeyProperty, exp.SortKeyProperty):
                raise SqlError("a column that is added cannot be a distribution or sort key", "0A000")
            if action.find(exp.GeneratedAsIdentityColumnConstraint):
                raise unsupported("IDENTITY in ALTER TABLE", "declare it in CREATE TABLE")
            then = _attributes(tree.this, [action], None)
            if list(_column(action)):
                raise unsupported("a key in ALTER TABLE", "declare it in CREATE TABLE")
            _check_not_null(action)
            for check in _byte_limit(action):
                action.append("constraints", check)
            return tuple(then)
        case exp.AlterColumn() if not action.args.get("dtype"):
            raise unsupported("ALTER COLUMN without TYPE")
        case exp.AlterColumn():
            return _alter_length(action, oid)
        case exp.Drop() if action.args.get("exists"):
            raise unsupported("DROP COLUMN IF EXISTS")
        case exp.Drop():
            return (f"SELECT rs_catalog.require_no_key_dropped({oid})",)
        case exp.AlterRename() | exp.RenameColumn():
            return ()
    raise refusal(f"ALTER TABLE … {words(type(action).__name__)}")


def _check_not_null(column: exp.ColumnDef) -> None:
    """
    Check that a column which is added NOT NULL has a default, even if the table is empty.

    The words are Redshift's, as Trino's tests on a cluster quote them:
    https://github.com/trinodb/trino/blob/master/plugin/trino-redshift/src/test/java/io/trino/plugin/redshift.

    :raises SqlError: 0A000 if it has none
    """
    not_null = column.find(exp.NotNullColumnConstraint)
    default = column.find(exp.DefaultColumnConstraint)
    if (
        not_null
        and not not_null.args.get("allow_null")
        and (not default or isinstance(default.this, exp.Null))
    ):
        raise SqlError(
            "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression", "0A000"
        )


def _alter_length(action: exp.AlterColumn, oid: str) -> tuple[str, ...]:
    """Return what follows a change of a VARCHAR's length: Redshift's conditions, and the limit in bytes."""
    column = exp.ColumnDef(this=action.this, kind=sized_type(action.args["dtype"], in_column=True))
    action.set("dtype", column.args["kind"])
    for check in _byte_limit(column):
        limit = _literal(check.name), _literal(check.expressions[0].sql(Postgres, identify=True))
        return (f"SELECT rs_catalog.change_length({oid}, {_literal(column.name)}, {', '.join(limit)})",)
    raise SqlError(f'ALTER COLUMN TYPE changes the length of a VARCHAR, not "{column.name}"', "0A000")


def _alter_keys(tree: exp.Alter) -> tuple[str, ...]:
    """Return the statements that store other distribution and sort keys, which changes nothing else here."""
    then = []
    for action in tree.args["actions"]:
        how = action.this.name.upper() if isinstance(action.this, exp.Var) else ""
        if isinstance(action, exp.AlterSortKey):
            columns, name = [column.name for column in action.expressions], "sortkey"
        else:
            columns, name = [] if how else [action.this.name], "distkey"
        if how != "AUTO":
            names = ", ".join(map(_literal, columns))
            then.append(f"SELECT rs_catalog.set_{name}({_oid(tree.this)}, ARRAY[{names}]::name[])")
        elif name == "distkey":
            raise unsupported("ALTER DISTSTYLE AUTO", "it depends on the table's size")
    # What PostgreSQL runs: it locks the table as Redshift does, and changes nothing
    tree.set("actions", [exp.Command(this="DISABLE ROW LEVEL SECURITY")])
    return tuple(then)
