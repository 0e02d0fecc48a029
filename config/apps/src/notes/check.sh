# Refuses a version that has nothing to show.
test -s notes.txt || { echo "notes.txt is empty"; exit 1; }
echo "there are $(wc -l < notes.txt) notes"
