"""Operations that several parts share."""
