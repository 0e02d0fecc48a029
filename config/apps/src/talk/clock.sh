# The sidecar: shares the app's files and its network, so it could as well ask localhost:$PORT.
while date > www/now.txt.new && mv www/now.txt.new www/now.txt; do
  sleep 1
done
