python make_data.py
mer-zoo import npz talks.npz --output talks

mer-zoo validate talks

mer-zoo compare context --data talks --models "BiLSTM;DialogueGCN" --seeds 2 \
    -o training.epochs=12 -o training.dialogues_per_batch=4

# fails
mer-zoo train mmgcn/iemocap --data talks

mer-zoo extract hashed_words talks --output talks_words -o out_width=64
