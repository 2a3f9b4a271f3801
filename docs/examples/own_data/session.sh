python make_data.py
mer-zoo import npz dialogues.npz --output dialogues

mer-zoo validate dialogues

mer-zoo compare context --data dialogues --models "BiLSTM;DialogueGCN" --seeds 2 \
    -o training.epochs=12 -o training.dialogues_per_batch=4

# fails
mer-zoo train mmgcn/iemocap --data dialogues

mer-zoo extract hashed_words dialogues --output dialogues_words -o out_width=64
