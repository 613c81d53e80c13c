"""The networks of the zoo that are no decoders, as plain nn.Modules whose layers `models.module` quantizes."""
